"""Many agents on one question: proposals, critique, scores, a ranked answer with its evidence."""
