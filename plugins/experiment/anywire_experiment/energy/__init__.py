"""How much energy the machine took, where it tells: processors by RAPL, NVIDIA's cards by NVML, Jetson boards by their
rails. `meter` reads them together; `source` says what each of them must do.
"""
