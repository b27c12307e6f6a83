"""One folder per framework, all behind the same Protocol; a framework is imported when it is first needed."""
