"""The studio: a local web app over one atlas."""
