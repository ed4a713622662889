"""Buy orders: a merchant requests the email of an order to its supplier, and follows what became of it."""
