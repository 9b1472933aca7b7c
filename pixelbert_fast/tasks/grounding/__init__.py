"""Whether a word's attention finds what the word names, where that is known: see `checkpoint`."""
