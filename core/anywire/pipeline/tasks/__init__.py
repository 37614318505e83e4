"""One task, with its attempts, its deadline and its readers, and what its caller and its retries may use."""
