"""Visual question answering: the field's task of many answers with soft scores."""
