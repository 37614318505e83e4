"""The launcher ``ray``: agents as actors of a Ray cluster.

Ray is imported by the driver's process alone, `anywire_launcher_ray.driver`, and by the cluster's workers. The launcher
itself, in the orchestrator's process, speaks with the driver over a pipe (`anywire_launcher_ray.messages`).
"""

from anywire_launcher_ray.config import RayConfig
from anywire_launcher_ray.launcher import RayLauncher

__all__ = ["RayConfig", "RayLauncher"]
