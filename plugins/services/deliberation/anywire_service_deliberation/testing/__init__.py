"""For the tests of who brings a store of deliberations."""
