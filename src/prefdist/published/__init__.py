"""Numbers that the four works published, set beside ours.

records.py: what workflow/published/*.yaml may say; ours.py: the cell of a suite's table that measures the same; comparison.py:
difference and combined interval; document.py: Markdown.
"""
