"""How far each prediction can be believed: estimates, their calibration, and scores of both."""
