"""What is installed on a node: binary, configuration, migration, upgrade and uninstall, on real files and in real namespaces."""
