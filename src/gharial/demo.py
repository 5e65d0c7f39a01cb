"""`gharial demo`: the story of 37 million customers, on real HTTP."""
