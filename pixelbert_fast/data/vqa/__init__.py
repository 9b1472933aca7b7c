"""Visual question answering: answers as the official evaluation reads them, and the sets as distributed."""
