"""The suites that come with Gibbon, one TOML file each."""
