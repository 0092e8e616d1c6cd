"""What all stand-ins share: the life of a job, pictures, faults, delivery. It knows no gateway by name."""
