"""What a person looks at: pictures of scans, plots, figures in words. It knows arrays, labels and
plain data, and no step.
"""
