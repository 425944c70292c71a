"""What several test modules use: files, models and runs that tests are made with."""
