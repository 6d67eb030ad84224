"""What the tests share: engines, servers and fleets to run, and naive models to compare with."""
