"""How training data are made: scenes -> rationales -> uncertainty -> selected preference data."""
