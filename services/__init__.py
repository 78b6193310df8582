"""Real database servers out of wheels, for the tests, the bench and the demo; nothing here is part of the package."""
