"""What one device does when it is asked: its job, its work, its calibration, its reply."""
