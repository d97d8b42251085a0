"""The command line: words into typed values, progress, records. It computes nothing."""
