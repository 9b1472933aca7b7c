"""`scenes`: generated images of plain shapes whose truth is known, with captions, questions and statements."""
