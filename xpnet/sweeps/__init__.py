"""Many runs: which there are, where they train, and what they come to."""
