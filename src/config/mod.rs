//! Every room's own configuration, composed; YAML; all faults at once with file, line and key path.
