"""`scenes`: generated images of shapes whose truth is known, with captions, questions and statements."""
