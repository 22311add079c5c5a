"""Preference pairs of a teacher's and a student's answers."""
