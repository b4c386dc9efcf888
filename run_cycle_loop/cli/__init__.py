"""Words to calls: one module per command group. It prints, asks and exits; logic worth a unit test lives below."""
