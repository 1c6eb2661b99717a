"""Programs compiled for chips that are not there, to learn what memory they take."""
