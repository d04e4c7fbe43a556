"""Many clips through many engines: what to run, where it runs, and the lines it leaves."""
