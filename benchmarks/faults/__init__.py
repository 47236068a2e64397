"""What happens to callers when things break: this project's backends beside two libraries that do the same job."""
