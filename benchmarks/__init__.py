"""Side by side with peers on real image sets: `python -m benchmarks NAME`."""
