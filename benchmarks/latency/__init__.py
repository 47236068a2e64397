"""Open loop: callers that come at random and do not wait for each other, as strangers do."""
