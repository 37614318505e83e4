"""A record for other programs and for papers: its `data`, and every table and figure of its report, as files."""
