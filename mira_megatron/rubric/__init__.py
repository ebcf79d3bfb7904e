"""What a record is judged by, and the judges."""
