"""From raw data to figures: `raw` reads a record, `metrics` makes numbers of a cell's samples, `blocks` and
`comparisons` what they come to over blocks, `analyse` all of the `results`. `wording` and `cautions` put them into
sentences.
"""
