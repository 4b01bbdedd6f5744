"""What does failover survive in other libraries, and what does it cost there?"""
