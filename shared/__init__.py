"""What functions share: contracts (settings, messages, tables, columns), edges (clients, delivery, logs) and steps."""
