"""The benchmarks say what their figures say."""
