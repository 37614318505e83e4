from anywire.testing.strategy_kit import SelectorConformance


class TestRoundRobin(SelectorConformance):
    selector = "round_robin"


class TestLeastLoaded(SelectorConformance):
    selector = "least_loaded"
