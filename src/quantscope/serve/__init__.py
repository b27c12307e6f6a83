"""The web app's server: run files of one folder as JSON, live, and the built app beside them."""
