"""A plug-in of Gibbon: an attack and a model."""
