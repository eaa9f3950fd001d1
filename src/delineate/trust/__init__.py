"""How far a prediction can be relied on."""
