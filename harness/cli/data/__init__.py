"""The commands ``bench data``: inspect, audit, index and export datasets."""
