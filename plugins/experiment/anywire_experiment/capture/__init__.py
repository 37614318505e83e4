"""``anywire capture``: a plan made of what a running fleet is asked, without the texts."""
