"""What deploy/ ships.

In path order:

    manifests    rendered overlays and components, and their objects
    workload     the kvatlas container of an overlay: its settings, with the folders that it mounts
    policies     what network policies let pass
    prometheus   promtool, and the metrics and labels that a query names
"""
