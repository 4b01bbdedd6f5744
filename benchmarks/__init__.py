"""Side by side with what a user would pick instead: run `benchmarks.overhead` and `benchmarks.correctness`."""
