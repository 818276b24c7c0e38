"""Reading, writing, splitting and checking data sets."""
