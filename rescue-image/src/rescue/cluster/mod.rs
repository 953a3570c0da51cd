//! Members of a Proxmox VE cluster, which start alone after a restore unless told otherwise.
