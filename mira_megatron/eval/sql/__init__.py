"""Text to SQL: Spider and BIRD, judged by what statements return."""
